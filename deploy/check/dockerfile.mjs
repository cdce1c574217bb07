// Reads a Dockerfile into its stages, and the files that a COPY takes. Only what the project's own Dockerfile uses is understood; anything else is an error and not skipped.

import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DockerfileParser } from 'dockerfile-ast';

/** Instructions that change nothing in the image's files. */
const SETTINGS = new Set(['USER', 'WORKDIR', 'ENV', 'EXPOSE', 'VOLUME', 'ENTRYPOINT', 'CMD', 'HEALTHCHECK', 'LABEL', 'STOPSIGNAL']);

/**
 * @param {string} text of the Dockerfile
 * @returns {{image: string, name: string | null, steps: {kind: string, line: number, flags: Record<string, string[]>, words: string[], text: string}[]}[]}
 */
export function stagesOf(text) {
  const stages = [];
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    const kind = instruction.getKeyword();
    const line = instruction.getRange().start.line + 1;
    if (kind === 'FROM') {
      stages.push({ image: instruction.getImage(), name: instruction.getBuildStage(), steps: [] });
      continue;
    }
    if (kind !== 'RUN' && kind !== 'COPY' && !SETTINGS.has(kind)) throw new Error(`line ${line}: ${kind} is not understood here`);
    if (stages.length === 0) throw new Error(`line ${line}: ${kind} before FROM`);
    stages.at(-1).steps.push({ kind, line, ...takenApart(instruction) });
  }
  return stages;
}

/** The flags, the words after them, and these as one text without comments and continuation lines. */
function takenApart(instruction) {
  const flags = {};
  for (const flag of instruction.getFlags?.() ?? []) (flags[flag.getName()] ??= []).push(flag.getValue() ?? '');
  const lines = (instruction.getRawArgumentsContent() ?? '').split('\n').filter((each) => !/^\s*#/.test(each));
  const text = lines.map((each) => each.replace(/\\\s*$/, '').trim()).join(' ');
  return { flags, text, words: text.split(/\s+/) };
}

/** A command in its JSON form; the shell form is refused, because a shell would be between the signal and the program. */
export function execForm(text) {
  const words = JSON.parse(text);
  if (!Array.isArray(words) || !words.every((word) => typeof word === 'string')) throw new Error(`not a list of words: ${text}`);
  return words;
}

/** The NAME=VALUE pairs of an ENV, without quotes around them. */
export const variables = (text) => Object.fromEntries(text.split(/\s+/).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));

/** The files below `root` that the build is given, by the rules of .dockerignore: the last line that fits decides. */
export function contextFiles(root) {
  const rules = readFileSync(join(root, '.dockerignore'), 'utf8')
    .split('\n')
    .map((each) => each.trim())
    .filter((each) => each !== '' && !each.startsWith('#'))
    .map((each) => ({ kept: each.startsWith('!'), pattern: each.replace(/^!/, '') }));
  if (rules.some(({ pattern }) => pattern !== '*' && /[*?[]/.test(pattern))) throw new Error('.dockerignore: only * alone and plain paths are understood');
  const isBelow = (path, pattern) => pattern === '*' || path === pattern || path.startsWith(`${pattern}/`);
  const isKept = (path) => rules.reduce((kept, rule) => (isBelow(path, rule.pattern) ? rule.kept : kept), true);
  const mayHoldKept = (path) => isKept(path) || rules.some((rule) => rule.kept && rule.pattern.startsWith(`${path}/`));
  const files = [];
  const walk = (folder) => {
    for (const name of readdirSync(join(root, folder))) {
      const path = folder === '' ? name : `${folder}/${name}`;
      if (statSync(join(root, path)).isDirectory()) {
        if (mayHoldKept(path)) walk(path);
      } else if (isKept(path)) {
        files.push(path);
      }
    }
  };
  walk('');
  return files;
}

/** The files of `files` that a source of COPY names: itself, or what is below it. */
export const taken = (files, source) => files.filter((path) => path === source || path.startsWith(`${source}/`));
