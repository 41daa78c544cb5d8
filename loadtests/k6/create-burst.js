// Creates, ten times as many for a third of the time.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'create-burst',
    rate: 500,
    seconds: 30,
    links: 0,
    parts: [
        [33, 0.1, 0.1],
        [34, 1, 1],
        [33, 0.1, 0.1],
    ],
    creates: 1,
    p99Ms: 250,
});
export { setup };
export default request;
