// Words, numbers and times in the reader's language. Text from the server is shown as it is; what the page says itself is in i18n/*.json.

const languages = { en: 'English', 'zh-CN': '中文' };
let language = 'en';
let words = {};
let numbers, fractions, relative, clock;

/** The languages that the page speaks: tag → name in that language. */
export const known = languages;

/** The language to begin with: `?lang=`, else what was chosen before, else what the browser prefers. */
export function preferred(search, stored, wanted) {
  const asked = [new URLSearchParams(search).get('lang'), stored, ...wanted];
  for (const tag of asked) {
    if (!tag) continue;
    if (/^zh\b/i.test(tag)) return 'zh-CN';
    if (/^en\b/i.test(tag)) return 'en';
  }
  return 'en';
}

/** Loads a language's words and makes it the page's. */
export async function use(tag) {
  const answer = await fetch(new URL(`../i18n/${tag}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`the words of ${tag} did not load: ${answer.status}`);
  words = await answer.json();
  language = tag;
  document.documentElement.lang = tag;
  numbers = new Intl.NumberFormat(tag, { maximumFractionDigits: 0 });
  fractions = new Intl.NumberFormat(tag, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  relative = new Intl.RelativeTimeFormat(tag, { numeric: 'always', style: 'short' });
  clock = new Intl.DateTimeFormat(tag, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });
}

export const current = () => language;

/** The text for a key, with `{name}` replaced; a key without a text shows itself, so that it is noticed. */
export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The text for a key that the server made up, such as a state; the server's word where the page has none. */
export const term = (prefix, word) => words[`${prefix}.${word}`] ?? word;

export const isKnown = (key) => key in words;

export const count = (number) => numbers.format(number);
export const fraction = (number) => fractions.format(number);

const UNITS = [
  ['day', 86400],
  ['hour', 3600],
  ['minute', 60],
  ['second', 1],
];

function inUnits(seconds) {
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return [Math.trunc(seconds / size), unit];
}

/** A length of time, in its largest unit. */
export function duration(seconds) {
  if (seconds > 0 && seconds < 1) return `< ${unitNumber(1, 'second')}`;
  const [number, unit] = inUnits(seconds);
  return unitNumber(number, unit);
}

const unitNumber = (number, unit) => new Intl.NumberFormat(language, { style: 'unit', unit, unitDisplay: 'short' }).format(number);

/** `at` seen from `now`, both in milliseconds: "3 min ago", "in 8 s". */
export function distance(at, now) {
  const [number, unit] = inUnits((at - now) / 1000);
  // Less than a second ago is "0 s ago", not "in 0 s".
  return relative.format(Object.is(number, 0) && at <= now ? -0 : number, unit);
}

export const moment = (at) => clock.format(at);
