// A usual day for long: does anything grow?
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'soak',
    rate: 500,
    seconds: 1800,
    links: 10000,
    period: 101,
    creates: 1,
});
export { setup };
export default request;
