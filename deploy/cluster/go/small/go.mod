module trimtab.dev/cluster/small

go 1.26
