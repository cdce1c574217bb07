// Tells when something has changed, by drover's stream. It says that, not what: what is shown comes from the lists, with their tags, so a page that missed a line is never wrong for longer than its interval.

import * as api from './api.js';

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;

/** The lines after which nothing has to be read: the answer begins with them, and they name no change. */
const QUIET = new Set(['hello', 'snapshot', 'bye']);

/** Follows the stream until the signal, whatever becomes of the server; `onChange` is called for each change, and after a gap. */
export async function follow(onChange, signal) {
  let wait = FIRST_WAIT_MS;
  let isFirst = true;
  while (!signal.aborted) {
    try {
      for await (const line of api.streamLines(signal)) {
        wait = FIRST_WAIT_MS;
        // What happened between two streams was told to nobody.
        if (!QUIET.has(line.event) || (line.event === 'hello' && !isFirst)) onChange();
        isFirst = false;
      }
    } catch (error) {
      if (!(error instanceof api.Failure)) throw error;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end);
  });
}
