// Everybody asks for one link.
import { define, request, setup } from './lib/terse.js';

export const options = define({
    name: 'hot-link',
    rate: 2000,
    seconds: 30,
    links: 1,
    hotEvery: 1,
});
export { setup };
export default request;
