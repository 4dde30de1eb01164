FROM busybox
COPY a /b
COPY a b c /d/
COPY "a b" /
COPY ["a b", "c", "/d e/"]
COPY [not json /x
COPY [a] /x
COPY --from=0 --exclude=*.md --exclude=!keep.md --parents --link=false ./x/./y /z
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/a /
ADD --keep-git-dir --unpack=FALSE git@github.com:x/y.git#v1:sub /src
ADD --chown=$U:$G --chmod="$M" --exclude= http://x/y /
