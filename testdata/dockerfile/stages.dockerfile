# syntax=docker/dockerfile:1 --verbose
# check=skip=JSONArgsRecommended;error=false
ARG VERSION=1.2 \
    SUFFIX="-slim"
ARG BARE

# build compiles the program
# check=skip=all
FROM --platform=$BUILDPLATFORM golang:${VERSION}${SUFFIX} AS Build
WORKDIR /src/
from build as test
FROM scratch
COPY --from=build --chown=1:2 --chmod=u=rwX,go=rX --link /a /b/
