# escape=`
# syntax=docker/dockerfile:1
FROM mcr.microsoft.com/windows/nanoserver
COPY testfile.txt c:\
RUN dir `
    c:\
ENV a=b` c d="e`"f" g='`'
