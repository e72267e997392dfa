// Command hold keeps a pod that Kubernetes takes away from being told to end before it is empty.
//
// It runs beside the model server. The server's preStop hook asks it for /hold, which is answered once the
// control plane, having drained the pod, has posted to /let-go; the kubelet tells the server to end only
// then, or after HOLD_FOR (a duration). A pod that never was ready (READY is where to ask) is not held: it has
// served nobody. It listens on PORT.
package main

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const askEach = 500 * time.Millisecond

func main() {
	longest, err := time.ParseDuration(os.Getenv("HOLD_FOR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "HOLD_FOR:", err)
		os.Exit(1)
	}
	wasReady := atomic.Bool{}
	go func() {
		awaitReady(os.Getenv("READY"))
		wasReady.Store(true)
	}()
	gone, once := make(chan struct{}), sync.Once{}
	http.HandleFunc("GET /hold", func(_ http.ResponseWriter, asked *http.Request) {
		if !wasReady.Load() {
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

// awaitReady returns once the server has answered 200; from then on it may be busy, and is held all the same.
func awaitReady(url string) {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		answer, err := client.Get(url)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(askEach)
	}
}
