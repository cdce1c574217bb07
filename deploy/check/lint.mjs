// Checks Dockerfile and compose.yaml as far as that is possible without Docker: `npm ci && npm run lint`. dclint checks compose.yaml against the schema of the Compose specification first.
//
// `make image-check` executes what is only read here.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { validate } from 'dockerfile-utils';
import { parse } from 'yaml';
import { contextFiles, execForm, stagesOf, taken } from './dockerfile.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const problems = [];
const demand = (isSo, text) => isSo || problems.push(text);

/** A tag of its own or a digest, so that the same file makes the same thing tomorrow. */
const isPinned = (image) => /@sha256:[0-9a-f]{64}$/.test(image) || (/:[^/:]+$/.test(image) && !/:latest$/.test(image));

function checkDockerfile(name, text) {
  for (const { message, range } of validate(text)) problems.push(`${name}, line ${range.start.line + 1}: ${message}`);
  const stages = read(name, text);
  if (stages.length === 0) return stages;
  const names = new Set();
  for (const stage of stages) {
    demand(names.has(stage.image) || isPinned(stage.image), `${name}: the image ${stage.image} has no version`);
    for (const step of stage.steps) {
      const from = step.flags.from?.[0];
      if (from !== undefined) demand(names.has(from), `${name}, line ${step.line}: no stage before is called ${from}`);
      for (const command of ['ENTRYPOINT', 'CMD']) if (step.kind === command) demand(isExecForm(step.text), `${name}, line ${step.line}: ${command} must be a JSON list`);
    }
    if (stage.name) names.add(stage.name);
  }
  const last = stages.at(-1);
  demand(stages.length > 1, `${name}: one stage only, so the compiler would be part of the image`);
  const user = last.steps.filter((step) => step.kind === 'USER').at(-1)?.text;
  demand(user !== undefined && !/^(root|0)(:|$)/.test(user), `${name}: the image must not run as root`);
  demand(last.steps.some((step) => step.kind === 'ENTRYPOINT'), `${name}: no ENTRYPOINT`);
  return stages;
}

function read(name, text) {
  try {
    return stagesOf(text);
  } catch (error) {
    problems.push(`${name}, ${error.message}`);
    return [];
  }
}

function isExecForm(text) {
  try {
    execForm(text);
    return true;
  } catch {
    return false;
  }
}

function checkImage() {
  const stages = checkDockerfile('Dockerfile', readFileSync(join(root, 'Dockerfile'), 'utf8'));
  if (stages.length === 0) return;
  const files = contextFiles(root);
  for (const step of stages.flatMap((stage) => stage.steps)) {
    if (step.kind !== 'COPY' || step.flags.from) continue;
    for (const source of step.words.slice(0, -1)) {
      demand(existsSync(join(root, source)), `Dockerfile, line ${step.line}: ${source} does not exist`);
      demand(taken(files, source).length > 0, `Dockerfile, line ${step.line}: .dockerignore keeps ${source} away from the build`);
    }
  }
  const { steps } = stages.at(-1);
  const user = steps.filter((step) => step.kind === 'USER').at(-1)?.text ?? '';
  demand(/^[1-9]\d*:[1-9]\d*$/.test(user), `Dockerfile: USER ${user} must be two numbers, so that Kubernetes can see that it is not root`);
  const check = steps.find((step) => step.kind === 'HEALTHCHECK')?.text ?? '';
  demand(check === 'CMD ["drover", "healthcheck"]', `Dockerfile: the health check must be the binary's own and is: ${check || 'none'}`);
  const { version } = readFileSync(join(root, 'Cargo.toml'), 'utf8').match(/^rust-version = "(?<version>[\d.]+)"/m)?.groups ?? {};
  const compiler = stages[0].image.match(/^rust:(\d+)\.(\d+)/);
  demand(version && compiler && Number(compiler[2]) >= Number(version.split('.')[1]), `Dockerfile: ${stages[0].image} is older than Cargo.toml's rust-version ${version}`);
  const release = (image) => image.match(/bookworm|trixie/)?.[0];
  demand(release(stages[0].image) === release(stages.at(-1).image), 'Dockerfile: builder and image are of different Debian releases, so the libraries may not fit');
}

function checkCompose() {
  const compose = parse(readFileSync(join(root, 'compose.yaml'), 'utf8'), { merge: true });
  const used = new Set();
  for (const [name, service] of Object.entries(compose.services)) {
    const where = `compose.yaml, ${name}`;
    demand(service.build || isPinned(service.image ?? ''), `${where}: the image ${service.image} has no version`);
    demand(service.healthcheck?.test?.length > 1, `${where}: no health check`);
    for (const port of service.ports ?? []) demand(/^127\.0\.0\.1:\d+:\d+$/.test(port), `${where}: port ${port} must be published on 127.0.0.1 only`);
    for (const volume of service.volumes ?? []) {
      const [source] = volume.split(':');
      if (source.startsWith('.')) demand(existsSync(join(root, source)), `${where}: ${source} does not exist`);
      else used.add(source);
    }
    for (const other of Object.keys(service.depends_on ?? {})) demand(compose.services[other], `${where}: depends on ${other}, which is not there`);
    const { context, dockerfile_inline: inline } = typeof service.build === 'object' ? service.build : { context: service.build };
    if (context) demand(existsSync(join(root, context)), `${where}: ${context} does not exist`);
    if (inline) {
      for (const step of checkDockerfile(`${where}, dockerfile_inline`, inline).flatMap((stage) => stage.steps)) {
        if (step.kind !== 'COPY' || step.flags.from) continue;
        for (const source of step.words.slice(0, -1)) demand(existsSync(join(root, context, source)), `${where}: ${context}/${source} does not exist`);
      }
    }
  }
  const declared = new Set(Object.keys(compose.volumes ?? {}));
  for (const name of used) demand(declared.has(name), `compose.yaml: the volume ${name} is not declared`);
  for (const name of declared) demand(used.has(name), `compose.yaml: the volume ${name} is not used`);
  for (const name of ['drover', 'kafka', 'elasticsearch', 'kibana', 'etcd']) demand(compose.services[name], `compose.yaml: no service ${name}`);
  const { elasticsearch, kibana } = compose.services;
  const tag = (service) => service?.image?.split(':').at(-1);
  demand(tag(elasticsearch) === tag(kibana), `compose.yaml: Kibana ${tag(kibana)} needs Elasticsearch of the same version, not ${tag(elasticsearch)}`);
  checkAddresses(compose);
}

/** drover's configuration names the other services by the names and ports that they have here. */
function checkAddresses({ services }) {
  const config = parse(readFileSync(join(root, 'deploy/compose/config.yaml'), 'utf8'));
  const hosts = [...config.kafka.brokers, ...config.elasticsearch.urls, ...(config.etcd?.endpoints ?? [])].map((each) => each.replace(/^https?:\/\//, '').split(':')[0]);
  for (const host of hosts) demand(services[host], `deploy/compose/config.yaml: no service of compose.yaml is called ${host}`);
  const advertised = services.kafka?.environment?.KAFKA_ADVERTISED_LISTENERS ?? '';
  for (const broker of config.kafka.brokers) demand(advertised.includes(`//${broker}`), `deploy/compose/config.yaml: Kafka does not advertise ${broker}`);
}

checkImage();
checkCompose();
if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
console.log('Dockerfile and compose.yaml: nothing found');
