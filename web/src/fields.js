// The form of a topic's entry in the store: from the entry to the inputs and back. Pure; what is legal only the server says.

export const FORMATS = ['json', 'text', 'auto', 'classic'];
export const CHOICES = {
  format: FORMATS,
  operation: ['index', 'create'],
  metadata: ['auto', 'on', 'off'],
  tombstones: ['skip', 'dead_letter'],
  on_reject: ['dead_letter', 'stop'],
};
export const FIELDS = ['index', 'format', 'start', 'operation', 'metadata', 'pipeline', 'tombstones', 'on_reject', 'labels'];

/** The inputs' texts for an entry; what the entry leaves out is empty. */
export function toInputs(entry) {
  const inputs = {};
  for (const field of FIELDS) inputs[field] = entry[field] ?? '';
  inputs.labels = Object.entries(entry.labels ?? {})
    .map(([name, text]) => `${name}=${text}`)
    .join('\n');
  return inputs;
}

/** The entry for the inputs: only what is filled in. */
export function toEntry(inputs) {
  const entry = {};
  for (const field of FIELDS) {
    const text = inputs[field].trim();
    if (text !== '') entry[field] = field === 'labels' ? labels(text) : text;
  }
  return entry;
}

function labels(text) {
  const pairs = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => {
      const equals = line.indexOf('=');
      return equals < 0 ? [line, ''] : [line.slice(0, equals).trim(), line.slice(equals + 1).trim()];
    });
  return Object.fromEntries(pairs);
}

/** Errors by the input they belong to; `form` for those of no input. */
export function byInput(errors) {
  const found = {};
  for (const error of errors) {
    const input = inputOf(error.pointer);
    (found[input] ??= []).push(error);
  }
  return found;
}

function inputOf(pointer) {
  if (pointer === '/path/topic') return 'name';
  const first = pointer.split('/')[1] ?? '';
  return FIELDS.includes(first) ? first : 'form';
}

export const isPrecondition = (error) => error.code === 'precondition-failed';
