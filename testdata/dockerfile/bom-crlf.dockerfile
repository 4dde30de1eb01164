FROM busybox
RUN a \
  b
COPY <<EOF /x
one
two
EOF
ENV a=b
