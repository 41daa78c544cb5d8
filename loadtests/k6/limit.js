// More creates than one caller may make: most get 429.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'limit',
    rate: 20,
    seconds: 20,
    links: 0,
    creates: 1,
    expects429: true,
    refusedPerMille: 0,
    latePerMille: 1000,
    p99Ms: 500,
});
export { setup };
export default request;
