# kiln's own images: `kiln` (the default) and `debug`, which has a shell.
#   kiln build --target kiln  -t registry.example.org/kiln:0.1 .
#   kiln build --target debug -t registry.example.org/kiln:0.1-debug .
# The bases are arguments, so that both can be made on a machine that reaches no public registry (tools/self-build).
ARG RUST_IMAGE=docker.io/library/rust:1-slim-trixie
ARG DEBIAN_IMAGE=docker.io/library/debian:trixie-slim

FROM ${RUST_IMAGE} AS binary
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin kiln && \
    install -D "target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln" /out/kiln

FROM ${DEBIAN_IMAGE} AS shell
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static ca-certificates
RUN mkdir -p /out/busybox && cp "$(command -v busybox)" /out/busybox/ && \
    for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/out/busybox/$applet"; done

# git for contexts and ADD, with the libraries it needs and a loader of its own: nothing of it outside of /kiln.
FROM shell AS git
RUN apt-get install -y --no-install-recommends git patchelf
RUN mkdir -p /out/git/lib && cp /usr/bin/git /usr/lib/git-core/git-remote-http /out/git/ && \
    ln -s git-remote-http /out/git/git-remote-https && \
    cp $(ldd /out/git/git /out/git/git-remote-http | grep -o '/[^ :]* (' | tr -d '(' | sort -u) /out/git/lib/ && \
    for program in git git-remote-http; do \
        patchelf --set-interpreter "/kiln/git/lib/$(basename "$(patchelf --print-interpreter /usr/bin/git)")" \
            --force-rpath --set-rpath /kiln/git/lib "/out/git/$program"; \
    done

# The file `own-image` says that steps may take the place of the container's files where nothing else works.
# One directory at the top, /kiln; /kaniko leads to it, so that jobs written for kaniko find their places.
FROM shell AS tree
COPY --from=git /out/git /image/kiln/git
COPY --from=binary /out/kiln /image/kiln/kiln
RUN mkdir -p -m 755 /image/kiln/.docker /image/kiln/ssl/certs && \
    cp /etc/ssl/certs/ca-certificates.crt /image/kiln/ssl/certs/ && \
    touch /image/kiln/own-image && \
    ln -s kiln /image/kiln/executor && ln -s kiln /image/kiln/warmer && ln -s kiln /image/kaniko

FROM scratch AS kiln
COPY --from=tree /image /
ENV PATH=/kiln:/kiln/git:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    GIT_SSL_CAINFO=/kiln/ssl/certs/ca-certificates.crt \
    DOCKER_CONFIG=/kiln/.docker \
    SSL_CERT_DIR=/kiln/ssl/certs
ENTRYPOINT ["/kiln/kiln"]

FROM kiln AS debug
COPY --from=shell /out/busybox /busybox
ENV PATH=/kiln:/kiln/git:/busybox:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SHELL ["/busybox/sh", "-c"]

FROM kiln
