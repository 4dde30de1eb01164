FROM busybox
RUN a \
# a comment inside
  # an indented one

    b \   
  c
RUN one && \

    two
RUN # not a comment
RUN x \
RUN last \