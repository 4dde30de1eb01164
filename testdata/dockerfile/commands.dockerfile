FROM busybox
RUN echo   "a  b" \
    && echo c   
RUN ["echo", "a b", "\u00e9\n"]
RUN ["echo", "hello"]this is invalid
RUN [ -f /x ] && true
RUN ['single', 'quotes']
RUN []
RUN
CMD
CMD []
CMD  ["a","b"]
ENTRYPOINT exec top -b
ENTRYPOINT []random string
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN --mount=type=cache,target="/root/.cache dir" --mount=type=secret,id=a --network=none --security=sandbox --device=vendor.com/x=all,required make -- --not-a-flag
RUN -- --looks-like=a-flag
HEALTHCHECK none
HEALTHCHECK --interval=1m30s --timeout=0 --start-period=500ms --start-interval=2s --retries=3 cmd curl -f http://localhost/ || exit 1
HEALTHCHECK CMD ["curl", "x"]
