FROM busybox
ENV a=1 b="two words" c='$literal' d=e\ f g="h\"i" \
    j=$a
ENV legacy   the rest "of the" line  
ENV abc=bye def=$abc
LABEL "quoted key"="v" org.example.x=y z=
LABEL multi="one \
two" after=x
LABEL old style label
ARG one two= three="3 3" four
MAINTAINER Somebody <some@body.example>
USER ${USER_NAME:-1000}:1000
WORKDIR /a b/c
VOLUME /data /log
VOLUME ["/data dir", "/x"]
EXPOSE 8080/tcp 443 $PORTS
STOPSIGNAL SIGRTMIN+3
