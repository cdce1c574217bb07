# drover in an image: built here, run as an ordinary user, with nothing beside the binary but the libraries that it loads.
#
#   docker build -t drover .
#   docker run --rm -v /etc/drover:/etc/drover:ro -v drover-data:/var/lib/drover -p 127.0.0.1:8080:8080 --stop-timeout 30 drover run --insecure
#
# The image listens on all of the container's addresses (DROVER_LISTEN below, which wins over `listen` in the file) and reads /etc/drover/config.yaml (DROVER_CONFIG). What that needs:
#
# * tokens (`auth: {tokens_file: tokens.yaml}` in the file, made by `drover token`), or --insecure: drover refuses an address that others can reach without the one or the other. With --insecure publish the port on a
#   loopback address of the host, as above.
# * `data_dir: /var/lib/drover` in the file. The default, ./data, is relative to the file, and /etc/drover is not writable.
# * `allowed_hosts` in the file, where the API is called by another name than a loopback one.
#
# Mount the folder of the file rather than the file: an editor that replaces the file is then noticed, and the change taken while drover runs.
# `docker run --rm -p 127.0.0.1:8080:8080 drover demo --dir /var/lib/drover/demo --insecure` needs no file and no server.

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /src
# The list of packages has one place, which `make run` uses too.
COPY .ci/prerequisites.sh .ci/prerequisites.sh
RUN bash .ci/prerequisites.sh build
COPY Cargo.toml Cargo.lock ./
# The OpenAPI document and the page's files become part of the binary.
COPY openapi openapi
COPY web web
COPY src src
# The caches keep what was downloaded and compiled for the next build; the binary is copied out of them, because a cache is no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --bin drover \
    && cp target/release/drover /usr/local/bin/drover

# The same Debian as the builder's, so that the libraries fit.
FROM debian:bookworm-slim
# libssl3: TLS and SCRAM towards Kafka. ca-certificates: the public CAs, for Kafka, Elasticsearch and etcd. Everything else that the binary loads (libc, libm, libgcc) is in the base image.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*
# An ordinary user with a fixed number, so that mounted folders can be given to it and Kubernetes can see that it is not root. A new volume takes owner and mode from the folder.
RUN groupadd --gid 10001 drover \
    && useradd --uid 10001 --gid drover --no-create-home --home-dir /var/lib/drover --shell /usr/sbin/nologin drover \
    && install -d -o drover -g drover -m 0750 /var/lib/drover
COPY --from=builder /usr/local/bin/drover /usr/local/bin/drover
USER 10001:10001
WORKDIR /var/lib/drover
# Dead letters, restart counts, the last good lists and, without etcd, the topics that the API wrote: what must outlive the container.
VOLUME /var/lib/drover
ENV DROVER_CONFIG=/etc/drover/config.yaml \
    DROVER_LISTEN=0.0.0.0:8080
EXPOSE 8080
# The binary asks itself whether it is ready, at DROVER_LISTEN; so there needs to be no HTTP client in the image.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=6 CMD ["drover", "healthcheck"]
# SIGTERM, the default, is what drover stops cleanly on. It takes up to `supervision.shutdown_timeout` (25 s): give the container longer than that (docker run --stop-timeout 30).
ENTRYPOINT ["drover"]
CMD ["run"]
