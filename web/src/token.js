// The reader's token, where drover asks for one. It is kept for this tab only, goes to this server only, and is never in an address.

const KEY = 'drover.token';
/** Where a browser keeps nothing: until the page is left. */
let unkept = '';

export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? unkept;
  } catch {
    return unkept;
  }
}

/** Takes a token as it was pasted; an empty one is forgotten. */
export function keep(text) {
  // Nothing else may stand in a header, and a fetch with it would fail like a server that is gone.
  unkept = text.replace(/[^\x21-\x7e]/g, '');
  try {
    if (unkept === '') sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, unkept);
  } catch {
    // Kept until the page is left.
  }
}

/** The header that says who asks. */
export const authorization = () => (token() === '' ? {} : { authorization: `Bearer ${token()}` });
