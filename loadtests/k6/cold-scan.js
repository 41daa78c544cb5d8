// Somebody guesses codes, nine of ten requests, beside visitors.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'cold-scan',
    rate: 500,
    seconds: 30,
    period: 10,
    unknown: 9,
});
export { setup };
export default request;
