// Command answers is a model server for tests that fits into an image of one file.
//
// It listens on PORT, is ready at /ping once READY_AFTER has passed (a duration; none: at once), and answers
// /invocations with the name of its pod, after ANSWER_AFTER; with ANSWER_ONE_BY_ONE never two at a time, so that a
// limit of more than one brings it nothing. With EXIT_AFTER it ends with status 3 after that time. A request whose
// body contains ALLOCATE_ON takes memory until the pod is killed for it.
// What PAGE holds is at /metrics.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	began := time.Now()
	readyAfter, _ := time.ParseDuration(os.Getenv("READY_AFTER"))
	oneByOne, answering := os.Getenv("ANSWER_ONE_BY_ONE") != "", sync.Mutex{}
	answerAfter, _ := time.ParseDuration(os.Getenv("ANSWER_AFTER"))
	if after, err := time.ParseDuration(os.Getenv("EXIT_AFTER")); err == nil {
		time.AfterFunc(after, func() {
			fmt.Println("the model cannot be loaded: no such file")
			os.Exit(3)
		})
	}
	http.HandleFunc("/ping", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < readyAfter {
			http.Error(w, "loading", http.StatusServiceUnavailable)
		}
	})
	allocateOn := []byte(os.Getenv("ALLOCATE_ON"))
	http.HandleFunc("/invocations", func(w http.ResponseWriter, r *http.Request) {
		if len(allocateOn) > 0 {
			if body, _ := io.ReadAll(r.Body); bytes.Contains(body, allocateOn) {
				allocate()
			}
		}
		if oneByOne {
			answering.Lock()
			defer answering.Unlock()
		}
		time.Sleep(answerAfter)
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, os.Getenv("PAGE"))
	})
	server := &http.Server{Addr: ":" + os.Getenv("PORT")}
	ended := make(chan struct{})
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-told.Done()
		server.Shutdown(context.Background())
		close(ended)
	}()
	fmt.Println("listening on", server.Addr)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Println(err)
		os.Exit(1)
	}
	<-ended
}

// allocate takes memory a megabyte at a time, and touches it: what is only promised is no pod's to be killed for.
func allocate() {
	for taken := [][]byte{}; ; {
		taken = append(taken, bytes.Repeat([]byte{1}, 1<<20))
	}
}
