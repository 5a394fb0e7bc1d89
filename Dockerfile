FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin isimud

FROM debian:bookworm-slim
RUN useradd --system --home-dir /data isimud && install -d -o isimud /data
COPY --from=build /src/target/release/isimud /usr/local/bin/isimud
USER isimud
WORKDIR /data
VOLUME /data
EXPOSE 8888 8889
# Beyond this container /live, /ready, /metrics and /openapi.json are all that the admin listener serves. For the rest name a
# file of tokens (isimud token new) in ISIMUD__ADMIN__TOKENS_FILE, and set this to false. Who reaches the listener by a host
# name (http://mq:8889) has to list it, ISIMUD__ADMIN__HOSTS='["mq"]': requests for any other name are answered 421.
ENV ISIMUD__ADMIN__PROBES_ONLY=true
ENTRYPOINT ["isimud", "--listen", "0.0.0.0:8888", "--admin-listen", "0.0.0.0:8889", "--store", "sqlite:/data/isimud.db"]
