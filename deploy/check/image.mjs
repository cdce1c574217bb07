// Executes the Dockerfile without Docker: each stage in a folder that debootstrap makes of the same Debian release, its RUN lines by chroot, its COPY lines by cp. Then runs the binary as the image's user.
//
//   node image.mjs --plan     says what would be done
//   node image.mjs            does it, as root; takes as long as a release build
//
// Where it differs from Docker: rust:VERSION is Debian with gcc, libc6-dev and the host's Rust, whatever its version is; there is no isolation beyond chroot and a mount namespace of its own; the host's
// settings of apt and of the network apply. Cargo's registry is the host's and the compiled crates are kept in the work folder, as --mount=type=cache keeps them.

import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { contextFiles, execForm, stagesOf, taken, variables } from './dockerfile.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const work = resolve(process.env.IMAGE_CHECK_DIR ?? '/var/tmp/drover-image-check');
const planOnly = process.argv.includes('--plan');
/** What an image brings beyond Debian's smallest variant. */
const BRINGS = { rust: ['ca-certificates', 'gcc', 'libc6-dev'], debian: [] };
const READY_WITHIN_MS = 30_000;
const STOPPED_WITHIN_MS = 30_000;

const say = (text) => console.log(text);

function run(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${signal ?? `exit code ${status}`}`);
}

function output(command, args, options = {}) {
  const { status, stdout, error } = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${status}`);
  return stdout.trim();
}

/** The Debian release of an image's name, and what the image brings. */
function baseOf(image) {
  const match = image.match(/^(rust:[\d.]+-slim-|debian:)(bookworm|trixie)(?:-slim)?$/);
  if (!match) throw new Error(`no folder can stand for the image ${image}`);
  const kind = match[1].split(':')[0];
  return { kind, release: match[2], packages: BRINGS[kind] };
}

/** Makes the folder that stands for an image, once. */
function base(image) {
  const { kind, release, packages } = baseOf(image);
  const folder = join(work, `base-${kind}-${release}`);
  if (existsSync(folder)) return folder;
  say(`-- debootstrap of ${release} for ${image}`);
  const partial = `${folder}.partial`;
  remove(partial);
  run('debootstrap', ['--variant=minbase', ...(packages.length > 0 ? [`--include=${packages.join(',')}`] : []), release, partial], { stdio: ['ignore', 'ignore', 'inherit'] });
  // What debootstrap wrote there would name the same packages twice.
  rmSync(join(partial, 'etc/apt/sources.list'), { force: true });
  for (const path of ['/etc/apt/sources.list', '/etc/apt/sources.list.d', '/etc/apt/apt.conf.d', '/etc/apt/auth.conf.d', '/etc/resolv.conf']) {
    if (existsSync(path)) run('cp', ['-rL', '--no-target-directory', path, join(partial, path)]);
  }
  // Nor do images bring what apt keeps.
  for (const path of ['var/lib/apt/lists', 'var/cache/apt/archives']) run('find', [join(partial, path), '-type', 'f', '-delete']);
  renameSync(partial, folder);
  return folder;
}

/** Never follows a mount: what is bound into a stage is the host's. */
const remove = (folder) => run('rm', ['-rf', '--one-file-system', folder]);

class Stage {
  constructor({ image, name, steps }, position) {
    Object.assign(this, { image, name: name ?? String(position), steps, folder: join(work, `stage-${name ?? position}`), directory: '/', user: 'root', environment: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' } });
    this.isRust = baseOf(image).kind === 'rust';
    if (this.isRust) Object.assign(this.environment, { CARGO_HOME: '/usr/local/cargo', PATH: `/usr/local/rust/bin:${this.environment.PATH}` });
  }

  /** Lays the folder and what the kernel and the image would have given to it. */
  lay() {
    remove(this.folder);
    run('cp', ['-a', base(this.image), this.folder]);
    run('mount', ['-t', 'proc', 'proc', join(this.folder, 'proc')]);
    run('mount', ['--rbind', '/dev', join(this.folder, 'dev')]);
    if (!this.isRust) return;
    this.bind(output('rustc', ['--print', 'sysroot'], { cwd: root }), '/usr/local/rust');
    const settings = join(cargoHome(), 'config.toml');
    if (existsSync(settings)) cpSync(settings, join(this.folder, 'usr/local/cargo/config.toml'));
  }

  bind(from, to) {
    mkdirSync(from, { recursive: true });
    mkdirSync(join(this.folder, to), { recursive: true });
    run('mount', ['--bind', from, join(this.folder, to)]);
  }

  /** Runs a command in the stage, in its working directory. */
  command(words, { as = 'root', variables: more = {}, ...options } = {}) {
    const args = ['chroot', ...(as === 'root' ? [] : [`--userspec=${as}`]), this.folder, 'sh', '-c', 'cd "$0" && exec "$@"', this.directory, ...words];
    return [args[0], args.slice(1), { env: { ...network(), ...this.environment, ...more }, ...options }];
  }

  run(step) {
    for (const mount of step.flags.mount ?? []) {
      const { type, target } = Object.fromEntries(mount.split(',').map((pair) => pair.split('=')));
      if (type !== 'cache') throw new Error(`line ${step.line}: only --mount=type=cache is understood`);
      this.bind(target.endsWith('/cargo/registry') ? join(cargoHome(), 'registry') : join(work, 'cache', target.replaceAll('/', '-')), target);
    }
    run(...this.command(['sh', '-c', step.text]));
    for (const mount of step.flags.mount ?? []) run('umount', [join(this.folder, mount.match(/target=([^,]+)/)[1])]);
  }

  copy(step, stages, files) {
    const target = step.words.at(-1);
    const to = join(this.folder, target.startsWith('/') ? target : join(this.directory, target));
    const isFolder = target.endsWith('/');
    for (const source of step.words.slice(0, -1)) {
      if (step.flags.from) {
        const from = join(stages.find(({ name }) => name === step.flags.from[0]).folder, source);
        mkdirSync(dirname(to), { recursive: true });
        run('cp', ['-a', from, to]);
        continue;
      }
      for (const path of taken(files, source)) {
        const isItself = path === source;
        const place = isItself ? (isFolder ? join(to, source.split('/').at(-1)) : to) : join(to, path.slice(source.length + 1));
        mkdirSync(dirname(place), { recursive: true });
        cpSync(join(root, path), place);
      }
    }
  }

  do(step, stages, files) {
    switch (step.kind) {
      case 'RUN':
        return this.run(step);
      case 'COPY':
        return this.copy(step, stages, files);
      case 'WORKDIR':
        this.directory = resolve(this.directory, step.text);
        return mkdirSync(join(this.folder, this.directory), { recursive: true });
      case 'ENV':
        return Object.assign(this.environment, variables(step.text));
      case 'USER':
        this.user = step.text;
        return undefined;
      default:
        return undefined;
    }
  }

  /** The words of the last instruction of a kind, in its JSON form. */
  words(kind) {
    return execForm(this.steps.filter((step) => step.kind === kind).at(-1).text.replace(/^CMD /, ''));
  }
}

const cargoHome = () => process.env.CARGO_HOME ?? join(process.env.HOME, '.cargo');
/** What the host needs to reach its package sources, a proxy for example. */
const network = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => /proxy$|^SSL_CERT_FILE$|^CARGO_(HTTP|NET|REGISTRIES|SOURCE)_/i.test(name)));

/** Runs the image as Docker would: its entrypoint as its user, asked by its health check. */
async function tryOut(image) {
  const as = image.user;
  const [program] = image.words('ENTRYPOINT');
  const path = `/usr/local/bin/${program}`;
  say(`-- ${output(...image.command([...image.words('ENTRYPOINT'), '--version'], { as }))}, as ${output(...image.command(['id', '-u'], { as }))}`);
  const libraries = output(...image.command(['ldd', path]));
  if (libraries.includes('not found')) throw new Error(`libraries are missing in the image:\n${libraries}`);

  const { status } = spawnSync(...image.command([...image.words('ENTRYPOINT'), ...image.words('CMD')], { as }));
  if (status !== 78) throw new Error(`without a configuration file the image must end with 78 and ended with ${status}`);

  // The image's own address would be one of the host here.
  const address = { DROVER_LISTEN: `127.0.0.1:${await freePort()}` };
  const check = () => spawnSync(...image.command(image.words('HEALTHCHECK'), { as, variables: address })).status;
  if (check() === 0) throw new Error('the health check calls well what does not run');
  const child = spawn(...image.command([...image.words('ENTRYPOINT'), 'demo', '--dir', 'demo'], { as, variables: address, stdio: ['ignore', 'inherit', 'inherit'] }));
  const ended = new Promise((done) => child.once('close', (code, signal) => done({ end: signal ?? code })));
  try {
    const until = Date.now() + READY_WITHIN_MS;
    while (check() !== 0) {
      const end = await Promise.race([ended, wait(200)]);
      if (end) throw new Error(`the demo in the image ended with ${end.end}`);
      if (Date.now() > until) throw new Error(`the health check does not call the image well within ${READY_WITHIN_MS / 1000} s`);
    }
    say('-- the health check calls it well');
    child.kill('SIGTERM');
    const end = await Promise.race([ended, wait(STOPPED_WITHIN_MS)]);
    if (end?.end !== 0) throw new Error(`after SIGTERM the image must end with 0 and ${end ? `ended with ${end.end}` : 'did not end'}`);
  } finally {
    child.kill('SIGKILL');
  }
  const mebibytes = (folder) => Number(output('du', ['-sxm', folder]).split('\t')[0]);
  remove(join(image.folder, image.directory, 'demo'));
  const binary = lstatSync(join(image.folder, path)).size / 1024 / 1024;
  say(`-- well. The binary has ${binary.toFixed(1)} MiB; with everything the image has ${mebibytes(image.folder) - mebibytes(base(image.image))} MiB more than ${image.image}`);
}

function freePort() {
  return new Promise((done, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

const described = ({ kind, flags, text }) => `${kind} ${Object.entries(flags).flatMap(([name, values]) => values.map((value) => `--${name}=${value} `)).join('')}${text}`;

async function main() {
  const stages = stagesOf(readFileSync(join(root, 'Dockerfile'), 'utf8')).map((stage, position) => new Stage(stage, position));
  const files = contextFiles(root);
  if (!planOnly) {
    if (process.getuid() !== 0) throw new Error('debootstrap and chroot need root');
    mkdirSync(work, { recursive: true });
    // Mounts of a namespace of its own end with this process, however it ends.
    if (!process.env.IMAGE_CHECK_INSIDE) {
      const { status } = spawnSync('unshare', ['--mount', process.execPath, ...process.argv.slice(1)], { stdio: 'inherit', env: { ...process.env, IMAGE_CHECK_INSIDE: '1' } });
      process.exit(status ?? 1);
    }
  }
  for (const stage of stages) {
    const { release, packages } = baseOf(stage.image);
    say(`== ${stage.name}: ${stage.image} = debootstrap of ${release}${packages.length > 0 ? ` with ${packages.join(', ')}` : ''}${stage.isRust ? ` and ${output('rustc', ['--version'])}` : ''}`);
    if (!planOnly) stage.lay();
    for (const step of stage.steps) {
      const started = Date.now();
      say(`-- line ${step.line}: ${described(step)}`);
      if (planOnly && step.kind === 'COPY' && !step.flags.from) for (const source of step.words.slice(0, -1)) say(`     ${source}: ${taken(files, source).length} files`);
      if (planOnly) continue;
      stage.do(step, stages, files);
      if (Date.now() - started > 5000) say(`   ${Math.round((Date.now() - started) / 1000)} s`);
    }
  }
  if (!planOnly) await tryOut(stages.at(-1));
}

await main().catch((error) => {
  console.error(`image-check: ${error.message}`);
  process.exit(1);
});
