FROM busybox
RUN ends with two \\
RUN a\
b
RUN three \\\
ENV x=a\
  y=b
\
RUN begins late
