// Command ginapp is a small order service written with Gin, as real ones are, that logs in any of the ways real
// ones do. The end-to-end tests follow it with the sidecar and compare what was asked with what was counted.
//
// Stdout and stderr hold what the loggers print and nothing else: the address goes to a file.
// On SIGTERM it finishes what is in flight, logs a last line and exits with 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

const service = "ginapp"

func main() {
	name := flag.String("logger", "gin", "one of: "+strings.Join(loggerNames(), ", "))
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	addrFile := flag.String("addr-file", "", "file or FIFO to write the address to, once it listens")
	color := flag.Bool("color", false, "Gin's colors, as in a container with a terminal")
	recoveryFirst := flag.Bool("recovery-first", false, "register recovery before the logger, as many services do by mistake")
	panicAtExit := flag.Bool("panic-at-exit", false, "panic in a goroutine after the shutdown")
	flag.Parse()

	if err := serve(*name, *addr, *addrFile, *color, *recoveryFirst, *panicAtExit); err != nil {
		fmt.Fprintln(os.Stderr, "ginapp:", err)
		os.Exit(1)
	}
}

func serve(name, addr, addrFile string, color, recoveryFirst, panicAtExit bool) error {
	build, known := loggers[name]
	if !known {
		return fmt.Errorf("unknown logger %q, expected one of: %s", name, strings.Join(loggerNames(), ", "))
	}
	if color {
		gin.ForceConsoleColor()
	}
	logging := build()
	engine := logging.engine(recoveryFirst)
	// Off by default in Gin; on, it tells 405 from 404.
	engine.HandleMethodNotAllowed = true
	route(engine, logging.say)

	stop, forget := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer forget()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if err := tell(addrFile, listener.Addr().String()); err != nil {
		return err
	}
	logging.say(stop, "listening", "addr", listener.Addr().String())

	server := &http.Server{Handler: engine, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}

	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return err
	}
	logging.say(deadline, "server stopped")
	if logging.flush != nil {
		logging.flush()
	}
	if panicAtExit {
		go func() {
			panic(errors.Join(errors.New("flush: 3 orders not stored"), errors.New("flush: connection refused")))
		}()
		select {}
	}
	return nil
}

// tell writes the address where whoever started the service reads it, which may be a FIFO.
func tell(path, addr string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(addr+"\n"), 0o600)
}
