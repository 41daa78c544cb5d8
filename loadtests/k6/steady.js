// A usual day: 100 redirects to a create, by Zipf's law.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'steady',
    rate: 1000,
    links: 10000,
    period: 101,
    creates: 1,
});
export { setup };
export default request;
