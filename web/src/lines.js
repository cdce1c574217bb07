// Lines of JSON out of a text that comes in pieces. Pure.

/** The JSON lines of a text that comes in pieces; empty lines keep the connection alive and mean nothing. */
export async function* jsonLines(pieces) {
  let rest = '';
  for await (const piece of pieces) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line.trim() !== '') yield JSON.parse(line);
    }
  }
}
