// What the reader chose, kept in the browser. A browser that keeps nothing works all the same.

export function read(name, usual) {
  try {
    return localStorage.getItem(`drover.${name}`) ?? usual;
  } catch {
    return usual;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(`drover.${name}`, value);
  } catch {
    // Kept until the page is left.
  }
}
