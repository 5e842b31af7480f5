package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"
)

// A line is a record as the sidecar's own structured-log schema wants it: nothing is left to normalize.
type line struct {
	Level       string         `json:"level"`
	Timestamp   string         `json:"timestamp"`
	ServiceName string         `json:"service_name"`
	TraceID     string         `json:"trace_id"`
	Message     string         `json:"message"`
	SpanID      string         `json:"span_id,omitempty"`
	Method      string         `json:"method,omitempty"`
	Route       string         `json:"route,omitempty"` // absent: no route matched
	Path        string         `json:"path,omitempty"`
	Status      int            `json:"status,omitempty"`
	DurationMS  *float64       `json:"duration_ms,omitempty"`
	ClientIP    string         `json:"client_ip,omitempty"`
	UserAgent   string         `json:"user_agent,omitempty"`
	Bytes       *int           `json:"response_bytes,omitempty"`
	Error       string         `json:"error,omitempty"`
	Stack       string         `json:"stack,omitempty"`
	Fields      map[string]any `json:"fields,omitempty"`
}

var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)

type spanKey struct{}

type ids struct{ trace, span string }

func newIDs(header string) ids {
	var traceID trace.TraceID
	var spanID trace.SpanID
	_, _ = rand.Read(traceID[:])
	_, _ = rand.Read(spanID[:])
	made := ids{traceID.String(), spanID.String()}
	if match := traceparent.FindStringSubmatch(header); match != nil {
		made.trace = match[1]
	}
	return made
}

// canonicalLogging writes the schema by hand. What no request caused belongs to a trace of the process.
func canonicalLogging() logging {
	release()
	var mutex sync.Mutex
	process := newIDs("")
	write := func(ctx context.Context, l line) {
		own, known := ctx.Value(spanKey{}).(ids)
		if !known {
			own = process
		}
		l.Timestamp, l.ServiceName = time.Now().UTC().Format(time.RFC3339Nano), service
		l.TraceID, l.SpanID = own.trace, own.span
		text, err := json.Marshal(l)
		if err != nil {
			panic(err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		_, _ = os.Stdout.Write(append(text, '\n'))
	}
	access := func(c *gin.Context) {
		ctx := context.WithValue(c.Request.Context(), spanKey{}, newIDs(c.GetHeader("traceparent")))
		c.Request = c.Request.WithContext(ctx)
		start := time.Now()
		c.Next()
		millis, size := float64(time.Since(start))/float64(time.Millisecond), max(c.Writer.Size(), 0)
		l := line{
			Level:      "info",
			Message:    "request",
			Method:     c.Request.Method,
			Route:      c.FullPath(),
			Path:       c.Request.URL.Path,
			Status:     c.Writer.Status(),
			DurationMS: &millis,
			ClientIP:   c.ClientIP(),
			UserAgent:  c.Request.UserAgent(),
			Bytes:      &size,
		}
		switch {
		case l.Status >= http.StatusInternalServerError:
			l.Level = "error"
		case l.Status >= http.StatusBadRequest:
			l.Level = "warn"
		}
		if last := c.Errors.Last(); last != nil {
			l.Error = last.Error()
		}
		write(ctx, l)
	}
	recovery := gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, reason any) {
		write(c.Request.Context(), line{
			Level:   "error",
			Message: "recovered from panic",
			Error:   fmt.Sprint(reason),
			Stack:   string(debug.Stack()),
		})
		c.AbortWithStatus(http.StatusInternalServerError)
	})
	say := func(ctx context.Context, message string, pairs ...any) {
		l := line{Level: "info", Message: message}
		for i := 0; i+1 < len(pairs); i += 2 {
			if l.Fields == nil {
				l.Fields = map[string]any{}
			}
			l.Fields[fmt.Sprint(pairs[i])] = pairs[i+1]
		}
		write(ctx, l)
	}
	return logging{access: access, recovery: recovery, say: say}
}
