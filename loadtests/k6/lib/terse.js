// What all scripts have in common: sizes, thresholds, the links they ask for,
// and what a right answer is. The scenarios are those of `loadtests/src/scenario.rs`.
//
//   TERSE_URL  the server, http://127.0.0.1:8080 by default; a path and slashes at its end may be
//   TERSE_KEY  an API key, if the server wants one
//   RATE, SECONDS, LINKS, USERS  other sizes: k6 run -e RATE=500 steady.js
//   P99_MS     the latency that 99 of 100 answers must not exceed
//   CONSTANT   the server redirects everything to this target: expect nothing else
//   RATE=0     as fast as answers come
//
// Redirects are not followed; status and Location of every answer are checked.

import { fail } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const url = (__ENV.TERSE_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
if (!/^https?:\/\/[^/?#]+[^?#]*$/.test(url)) {
    throw new Error(`TERSE_URL is no http:// or https:// address of a server: ${url}`);
}
const isHere = /^https?:\/\/(localhost|127\.[0-9.]+|0\.0\.0\.0|\[::1?\])([:/]|$)/.test(url);
const linksUrl = `${url}/api/v1/links`;
const limitedBy = 'the server limits its callers: start it with TERSE_LIMITS=off, or ask for less';
const constant = __ENV.CONSTANT || '';
const batchItems = 500;
const samplesPerUser = 3;
const expected = { seed: [200], create: [201], redirect: [301, 302, 307, 308], unknown: [404] };

// Answers that are wrong: another status, another target.
const wrong = new Counter('wrong_answers');
// 429 and 503 with Retry-After where another answer was expected, and no answer at all.
const refused = new Counter('refused');
// 429 with Retry-After where that is what it is about.
const limited = new Counter('limited');
// Links made during the load.
const made = new Counter('made');

const base = {
    parts: [[100, 1, 1]],
    seconds: 60,
    links: 1000,
    period: 1,
    creates: 0,
    unknown: 0,
    hotEvery: 0,
    expects429: false,
    refusedPerMille: 1,
    latePerMille: 10,
    p99Ms: 50,
};

let scenario = null;
let zipf = [];
let told = 0;

// The options of a script. `sizes` says what differs from `base`; `parts` are hundredths of the time,
// and the rates at their ends in times of the scenario's.
export function define(sizes) {
    scenario = Object.assign({}, base, sizes);
    scenario.rate = number('RATE', scenario.rate);
    scenario.seconds = number('SECONDS', scenario.seconds);
    scenario.links = number('LINKS', scenario.links);
    if (scenario.links < 1 && scenario.period > scenario.creates + scenario.unknown) {
        throw new Error('LINKS must be at least 1: this scenario asks for links');
    }
    const users = number('USERS', 64);
    const total = scenario.parts.reduce((sum, [share, from, to]) => sum + (share * (from + to)) / 200, 0);
    const requests = Math.round(total * scenario.rate * scenario.seconds);
    // What k6 counts as failed is what was refused, unanswered, or had a wrong status.
    const thresholds = {
        'http_reqs{load:yes}': ['count>=1'],
        'wrong_answers': ['count==0'],
        'http_req_failed{load:yes}': [`rate<=${scenario.refusedPerMille / 1000}`],
        'dropped_iterations': [`count<=${Math.floor((requests * scenario.latePerMille) / 1000)}`],
        'http_req_duration{load:yes}': [`p(99)<=${number('P99_MS', scenario.p99Ms)}`],
    };
    if (scenario.expects429) {
        thresholds['limited'] = ['count>=1'];
        thresholds['made'] = ['count>=1'];
    }
    return {
        scenarios: { [scenario.name]: executor(users) },
        thresholds,
        maxRedirects: 0,
        noCookiesReset: true,
        discardResponseBodies: true,
        setupTimeout: '300s',
        systemTags: ['status', 'error_code'],
        summaryTrendStats: ['min', 'med', 'p(90)', 'p(99)', 'max'],
    };
}

function number(name, usual) {
    const given = __ENV[name];
    if (given === undefined || given === '') {
        return usual;
    }
    const value = Number(given);
    if (!Number.isFinite(value) || value < 0) {
        throw new Error(`${name} is no size: ${given}`);
    }
    return value;
}

function executor(users) {
    if (scenario.rate === 0) {
        return { executor: 'constant-vus', vus: users, duration: `${scenario.seconds}s`, gracefulStop: '10s' };
    }
    const arrivals = { timeUnit: '60s', preAllocatedVUs: users, maxVUs: users, gracefulStop: '10s' };
    const perMinute = (times) => Math.round(scenario.rate * times * 60);
    if (scenario.parts.length === 1) {
        return { executor: 'constant-arrival-rate', rate: perMinute(1), duration: `${scenario.seconds}s`, ...arrivals };
    }
    const stages = [];
    scenario.parts.forEach(([share, from, to]) => {
        const ms = Math.round(scenario.seconds * share * 10);
        stages.push({ target: perMinute(from), duration: '0s' }, { target: perMinute(to), duration: `${ms}ms` });
    });
    return { executor: 'ramping-arrival-rate', startRate: perMinute(scenario.parts[0][1]), stages, ...arrivals };
}

// Makes the links that are asked for.
export function setup() {
    [wrong, refused, limited, made].forEach((counter) => counter.add(0));
    if (!isHere) {
        console.warn(`the load goes to ${url}, which is not this machine`);
    }
    const run = Date.now().toString(16);
    const links = [];
    if (constant !== '') {
        for (let n = 0; n < Math.max(scenario.links, 1); n += 1) {
            links.push({ code: `c${String(n).padStart(6, '0')}`, target: constant });
        }
        return { run, links };
    }
    for (let begin = 0; begin < scenario.links; begin += batchItems) {
        const count = Math.min(batchItems, scenario.links - begin);
        const targets = Array.from({ length: count }, (_, n) => target(run, `known/${begin + n}`));
        const body = JSON.stringify({ items: targets.map((to) => ({ url: to })) });
        const answer = http.post(`${linksUrl}/batch`, body, parameters('seed', true));
        if (answer.status !== 200) {
            fail(`making links on ${url}: ${answer.status} ${answer.error} ${answer.body}`);
        }
        const items = answer.json('items');
        if (!Array.isArray(items) || items.length !== count) {
            fail(`making ${count} links on ${url}: ${JSON.stringify(items)}`);
        }
        items.forEach((item, n) => {
            if (item.status === 429) {
                fail(`no link to ${targets[n]}: ${limitedBy}`);
            }
            if (item.status !== 201) {
                fail(`no link to ${targets[n]}: ${JSON.stringify(item)}`);
            }
            links.push({ code: item.link.code, target: targets[n] });
        });
    }
    return { run, links };
}

function target(run, what) {
    return `https://example.com/load/${run}/${what}`;
}

function parameters(kind, wantsBody) {
    const headers = {};
    if (kind === 'seed' || kind === 'create') {
        headers['Content-Type'] = 'application/json';
        if (__ENV.TERSE_KEY) {
            headers.Authorization = `Bearer ${__ENV.TERSE_KEY}`;
        }
    }
    return {
        headers,
        // What k6 calls failed; what is right is judged below.
        responseCallback: http.expectedStatuses(...(kind === 'create' && scenario.expects429 ? [201, 429] : expected[kind])),
        redirects: 0,
        timeout: '10s',
        responseType: wantsBody ? 'text' : 'none',
        tags: { kind, load: kind === 'seed' ? 'no' : 'yes', name: kind },
    };
}

// One request, and what becomes of it. k6 goes on when a script throws; here that is a wrong answer.
export function request(data) {
    try {
        ask(data, exec.scenario.iterationInTest);
    } catch (error) {
        wrong.add(1);
        tell(`${error}`);
    }
}

function ask(data, n) {
    const left = scenario.period - (n % scenario.period);
    if (constant === '' && left <= scenario.creates) {
        create(data, n);
    } else if (constant === '' && left <= scenario.creates + scenario.unknown) {
        const path = `/none-${data.run}-${n}`;
        judge(path, http.get(url + path, parameters('unknown', false)), '404', (answer) => answer.status === 404);
    } else {
        visit(data.links[pick(data.links.length, n)]);
    }
}

function visit(link) {
    const path = `/${link.code}`;
    const right = (answer) =>
        [301, 302, 307, 308].includes(answer.status) && answer.headers.Location === link.target;
    judge(path, http.get(url + path, parameters('redirect', false)), `a redirect to ${link.target}`, right);
}

function create(data, n) {
    const to = target(data.run, `made/${n}`);
    const answer = http.post(linksUrl, JSON.stringify({ url: to }), parameters('create', true));
    if (answer.status === 429 && scenario.expects429 && waits(answer)) {
        limited.add(1);
        return;
    }
    const right = () => {
        if (answer.status !== 201) {
            return false;
        }
        const link = answer.json();
        return link.url === to && !!link.code && String(answer.headers.Location).endsWith(`/${link.code}`);
    };
    if (judge(linksUrl, answer, `201 and a link to ${to}`, right)) {
        made.add(1);
    }
}

// By Zipf's law with exponent 1, unless this one is for the first link.
function pick(count, n) {
    if (scenario.hotEvery > 0 && n % scenario.hotEvery === 0) {
        return 0;
    }
    for (let sum = zipf.length > 0 ? zipf[zipf.length - 1] : 0; zipf.length < count; ) {
        sum += 1 / (zipf.length + 1);
        zipf.push(sum);
    }
    const point = Math.random() * zipf[count - 1];
    let [low, high] = [0, count - 1];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (zipf[middle] <= point) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

function waits(answer) {
    return /^[0-9]+$/.test(answer.headers['Retry-After'] || '');
}

function judge(path, answer, wanted, right) {
    if (answer.status === 0 || ((answer.status === 429 || answer.status === 503) && waits(answer))) {
        refused.add(1);
        tell(`${path}: ${answer.status} ${answer.status === 429 ? limitedBy : answer.error}`);
        return false;
    }
    let good = false;
    try {
        good = right(answer);
    } catch (error) {
        good = false;
    }
    if (!good) {
        wrong.add(1);
        tell(`${path}: ${answer.status} to ${answer.headers.Location}, expected ${wanted}`);
    }
    return good;
}

// The first few answers that are not right; all of them are counted.
function tell(text) {
    if (told < samplesPerUser) {
        told += 1;
        console.error(`not right: ${text}`);
    }
}
