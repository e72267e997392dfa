// Command hold keeps a pod that Kubernetes takes away from being told to end before it is empty.
//
// It runs beside the model server. The server's preStop hook asks it for /hold, which is answered once the
// control plane, having drained the pod, has posted to /let-go; the kubelet tells the server to end only
// then, or after HOLD_FOR (a duration). A pod for which nobody has posted to /serves yet is not held: it has
// no requests. It listens on PORT.
//
// For images that have no programs of their own: `hold copy-to FILE` copies itself, `hold true` does nothing.
package main

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	longest, err := time.ParseDuration(os.Getenv("HOLD_FOR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "HOLD_FOR:", err)
		os.Exit(1)
	}
	serves := atomic.Bool{}
	http.HandleFunc("POST /serves", func(http.ResponseWriter, *http.Request) { serves.Store(true) })
	gone, once := make(chan struct{}), sync.Once{}
	http.HandleFunc("GET /hold", func(_ http.ResponseWriter, asked *http.Request) {
		if !serves.Load() {
			return
		}
		select {
		case <-gone:
		case <-time.After(longest):
		case <-asked.Context().Done():
		}
	})
	// Remembered: it may come before the hook does.
	http.HandleFunc("POST /let-go", func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(gone) })
	})
	if err := http.ListenAndServe(":"+os.Getenv("PORT"), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tool(asked []string) error {
	switch {
	case len(asked) == 1 && asked[0] == "true":
		return nil
	case len(asked) == 2 && asked[0] == "copy-to":
		self, err := os.Executable()
		if err != nil {
			return err
		}
		program, err := os.ReadFile(self)
		if err != nil {
			return err
		}
		return os.WriteFile(asked[1], program, 0o755)
	}
	return fmt.Errorf("hold: cannot %q; it can `copy-to FILE` and `true`", asked)
}
