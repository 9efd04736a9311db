// A static HTTP server: what images "from scratch" usually hold.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	address := ":8080"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s, %s\n", runtime.Version(), r.URL.Path)
	})
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		go func() {
			time.Sleep(50 * time.Millisecond)
			os.Exit(7)
		}()
	})
	server := &http.Server{Addr: address}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	go func() {
		<-stop.Done()
		log.Print("stopping")
		server.Shutdown(context.Background())
		close(done)
	}()
	log.Printf("listening on %s with %d processors", address, runtime.NumCPU())
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
}
