// A record as the API sends it. Pure.

/** The text of base64, where it is UTF-8; else the base64 itself. A list cuts payloads anywhere, also within a character. */
export function asText(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  for (let cut = 0; cut < 4; cut += 1) {
    try {
      return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, bytes.length - cut)), isText: true };
    } catch {
      // The last character may be a part of one.
    }
  }
  return { text: base64, isText: false };
}
