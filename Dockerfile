# Caddy with this plugin and nothing else: no shell, no package manager, not as root.
#
#   docker build -t caddy-tinybird .
#   docker run --rm -p 127.0.0.1:8080-8082:8080-8082 caddy-tinybird caddy demo --container
#
# docs/install.md says how to run it with a config of yours.

# The compiler runs on the machine that builds, also for another platform.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH make build
# What is beside the binary: the authorities that sign certificates, a user, and directories that this user can write to.
RUN mkdir -p /image/root/etc/ssl/certs /image/root/etc/caddy /image/root/srv /image/owned/config/caddy /image/owned/data/caddy /image/owned/tmp \
	&& cp /etc/ssl/certs/ca-certificates.crt /image/root/etc/ssl/certs/ \
	&& echo 'caddy:x:65532:65532::/data:/usr/sbin/nologin' >/image/root/etc/passwd \
	&& echo 'caddy:x:65532:' >/image/root/etc/group

FROM scratch
COPY --from=build /image/root/ /
COPY --from=build --chown=65532:65532 /image/owned/ /
COPY --from=build /src/bin/caddy /usr/bin/caddy
COPY LICENSE /usr/share/doc/caddy-tinybird/LICENSE

# As in Caddy's own image, so that its compose files and volumes fit: certificates and keys are below /data.
ENV PATH=/usr/bin XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
LABEL org.opencontainers.image.title="caddy-tinybird" \
	org.opencontainers.image.description="Caddy that lets signed-in users read Tinybird pipes, each tenant its own rows" \
	org.opencontainers.image.source="https://github.com/seed-32cb3e43/caddy-tinybird" \
	org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 80 443 443/udp
USER 65532:65532
WORKDIR /srv
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/bin/caddy", "tinybird", "status"]
CMD ["/usr/bin/caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
