// A little of everything: does it work? Fits a server with its limits on.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'smoke',
    rate: 10,
    seconds: 10,
    links: 5,
    period: 10,
    creates: 1,
    unknown: 1,
    refusedPerMille: 0,
    latePerMille: 1000,
    p99Ms: 500,
});
export { setup };
export default request;
