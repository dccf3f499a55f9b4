# The server and raftkv-nc in a small image without a shell.
#
#   docker build -t raftkv .
#   docker run -p 7001:7001 -p 8001:8001 -v raftkv-data:/var/lib/raftkv raftkv

FROM rust:1.91-bookworm AS build
WORKDIR /src
COPY . .
# Each by itself, as it is shipped: a build of both would join their features.
RUN cargo build --release --locked -p raftkv && cargo build --release --locked -p raftkv-nc
RUN mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/raftkv-server /src/target/release/raftkv-nc /usr/local/bin/
COPY --from=build --chown=nonroot:nonroot /data /var/lib/raftkv
VOLUME /var/lib/raftkv
# Clients and nodes; HTTP.
EXPOSE 7001 8001
ENV RAFTKV_LISTEN=0.0.0.0:7001 RAFTKV_DATA_DIR=/var/lib/raftkv
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/local/bin/raftkv-nc", "--timeout", "4", "127.0.0.1:7001", "ping"]
ENTRYPOINT ["/usr/local/bin/raftkv-server"]
# A single node, reached where the port is published. A node of a cluster gets --node-id and --initial-cluster instead.
CMD ["--advertise", "localhost:7001"]
