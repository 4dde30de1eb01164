#!/usr/bin/env build
# syntax=docker/dockerfile:1
# first
#
# about from
FROM busybox

# about run

# more about run
	# indented
RUN x
# end
