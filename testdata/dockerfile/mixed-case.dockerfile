From busybox As B
Run x
eXpOsE 80
copy --from=b a b
