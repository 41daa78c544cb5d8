// Makes patterns.txt out of the npm package crawler-user-agents (MIT, see LICENSE beside this file):
//
//   npm pack crawler-user-agents && tar xzf crawler-user-agents-*.tgz
//   node generate.mjs package/crawler-user-agents.json > patterns.txt
//
// The regular expressions become plain texts that one Aho-Corasick automaton finds. Whatever changes in patterns.txt
// tells some click apart differently: raise RULES in enrich.rs.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const file = process.argv[2];
const entries = JSON.parse(readFileSync(file, 'utf8'));
const { version } = JSON.parse(readFileSync(join(dirname(file), 'package.json'), 'utf8'));

// Patterns that people's browsers match as well.
const LEFT_OUT = new Set([
  'AP3A\\.240617\\.008', // a build of Android, which in-app browsers tell
  'MetaIAB Facebook', // Facebook's in-app browser
  'Code\\/1\\.', // the browser inside an editor
]);

// Patterns that are more than alternatives of plain texts.
const REWRITTEN = {
  'AdsBot-Google([^-]|$)': ['AdsBot-Google'],
  '[wW]get': ['wget', 'Wget'],
  '(sistrix|SISTRIX) [cC]rawler': ['sistrix crawler', 'sistrix Crawler', 'SISTRIX crawler', 'SISTRIX Crawler'],
  'Ahrefs(Bot|SiteAudit)': ['AhrefsBot', 'AhrefsSiteAudit'],
  'S[eE][mM]rushBot': ['SemrushBot', 'SEMrushBot', 'SeMrushBot', 'SEmrushBot'],
  'Livelap[bB]ot': ['Livelapbot', 'LivelapBot'],
  '[pP]ingdom': ['pingdom', 'Pingdom'],
  'Bark[rR]owler': ['Barkrowler', 'BarkRowler'],
  '(^| )sentry\\/': ['^sentry/', ' sentry/'],
  '(^| )PTST\\/': ['^PTST/', ' PTST/'],
  '[Cc]urebot': ['Curebot', 'curebot'],
  'BlogTraffic\\/\\d\\.\\d+ Feed-Fetcher': ['Feed-Fetcher'],
  '[cC]laude[bB]ot': ['claudebot', 'claudeBot', 'Claudebot', 'ClaudeBot'],
  '[aA]cunetix': ['acunetix', 'Acunetix'],
  '[dD]ir[Bb]uster': ['dirbuster', 'dirBuster', 'Dirbuster', 'DirBuster'],
  '[mM]echanize': ['mechanize', 'Mechanize'],
  'Automaton|Newsify Feed Fetcher': ['Automaton', 'Newsify Feed Fetcher'],
  'Chirp|gotosocial': ['Chirp', 'gotosocial'],
  '[cC]ludo': ['cludo', 'Cludo'],
  'ContextualBot[\\s\\S]*outcomes\\.net': ['ContextualBot'],
  'Current[\\s\\S]*RSS Reader': ['currentreader.app'],
  'Netumo|netumo': ['Netumo', 'netumo'],
  'Spider[\\s\\S]*spider\\.com': ['spider.com'],
};

// The kind of program that somebody who looks at clicks would call it; the first tag that stands here decides.
const KINDS = [
  ['social-preview', 'preview'],
  ['monitoring', 'monitoring'],
  ['search-engine', 'crawler'],
  ['ai-crawler', 'crawler'],
  ['http-library', 'tool'],
  ['browser-automation', 'tool'],
];

function texts(pattern) {
  if (REWRITTEN[pattern]) return REWRITTEN[pattern];
  const text = pattern.replace(/\\([\/.()+!])/g, '$1');
  const plain = pattern.replace(/\\[\/.()+!]/g, '').replace(/^\^/, '').replace(/\$$/, '');
  if (/[\\[\](){}|*+?^$.]/.test(plain)) throw new Error(`rewrite the pattern ${pattern} by hand`);
  return [text];
}

// What the newest clicks show as the browser: the text without what is only there to match.
function name(text) {
  return text.replace(/^[\^\s;]+|[$\/\s;()]+$/g, '');
}

const lines = [];
for (const { pattern, tags } of entries) {
  if (LEFT_OUT.has(pattern)) continue;
  const kind = KINDS.find(([tag]) => tags.includes(tag))?.[1] ?? 'crawler';
  for (const text of texts(pattern)) lines.push(`${kind}\t${name(text)}\t${text}`);
}
console.log(`# Made by generate.mjs out of crawler-user-agents ${version} (MIT, see LICENSE). Kind, name, text;`);
console.log('# a text after ^ stands at the beginning, one before $ at the end.');
console.log([...new Set(lines)].join('\n'));
