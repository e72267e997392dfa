module trimtab.dev/hold

go 1.26
