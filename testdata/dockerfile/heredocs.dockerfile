FROM busybox
RUN <<EOF
echo one
# not a comment
echo "two" \
EOF
RUN <<-'SCRIPT'
	#!/usr/bin/env python3
		print("tabs go")
    print("spaces stay")
	SCRIPT
RUN <<A cat > f1 && <<-B cat > f2
in a
A
	in b
	B
RUN 3<<IN1 cat <&3
x
IN1
RUN echo "<<NOT" '<<NOR' \<\<NEITHER <<<word
COPY <<a.txt <<"b.txt" plain --chmod=1 /dest/
a: $x
a.txt
b: $x
b.txt
COPY --chmod=755 <<E"O"F /x
body
EOF
ADD ["<<json", "/x"]
ONBUILD RUN <<EOF
echo  child
EOF
ONBUILD COPY <<-EOF /y
	tab
	EOF
USER done
