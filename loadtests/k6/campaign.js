// One link of a campaign: the rate grows tenfold and falls again.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'campaign',
    rate: 200,
    parts: [
        [25, 1, 1],
        [25, 1, 10],
        [25, 10, 10],
        [25, 10, 1],
    ],
    hotEvery: 2,
});
export { setup };
export default request;
