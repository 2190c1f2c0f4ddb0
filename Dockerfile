# syntax=docker/dockerfile:1
# Two stages: what builds is not what runs. Build from the repository's root:
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" -t kore-gateway .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# rust:slim brings gcc and libc6-dev, and that is all the build needs.
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY standin standin
COPY config config
# Not built, but the manifest names it, and cargo wants to see what a manifest names.
COPY benches benches
ARG COMMIT=unknown
RUN KORE_GATEWAY_COMMIT="$COMMIT" cargo build --release --locked --bin kore-gateway

FROM debian:bookworm-slim
# Certificates to trust the upstream by. Their version follows the base image's security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/kore-gateway /usr/local/bin/kore-gateway
# Nobody: no home, no shell, no name needed. The file system can be read-only. Files that are mounted have to be readable by
# this user: a secret of root's with mode 0600 is not.
USER 65532:65532
# A container's loopback is its own. This lies over every configuration file, so none can make it listen on loopback again.
# The ops listener has no authentication: do not publish its port.
ENV KORE_GATEWAY__SERVER__LISTEN=0.0.0.0:8080 \
    KORE_GATEWAY__OPS__LISTEN=0.0.0.0:9090
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/kore-gateway", "healthcheck", "--url", "http://127.0.0.1:9090"]
ENTRYPOINT ["/usr/local/bin/kore-gateway"]
CMD ["serve", "--config", "/etc/kore-gateway/gateway.toml"]
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="kore-gateway" \
    org.opencontainers.image.description="A caching API gateway for Kore.ai's conversation APIs" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="$COMMIT" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
