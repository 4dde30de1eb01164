BEGIN { FS = ","; print "<!doctype html><meta charset=utf-8><title>hello</title><ul>" }
{ printf "<li lang=\"%s\">%s</li>\n", $1, $2 }
END { print "</ul>" }
