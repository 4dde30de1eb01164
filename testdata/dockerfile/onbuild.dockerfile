FROM busybox
ONBUILD   RUN   echo  hi   there
onbuild COPY --from=other a \
    b
ONBUILD ENV a=b c="d e"
ONBUILD NOTYET known
ONBUILD CMD ["a"]
