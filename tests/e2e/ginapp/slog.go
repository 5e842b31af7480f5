package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	ginslog "github.com/gin-contrib/slog"
	"github.com/gin-gonic/gin"
	sloggin "github.com/samber/slog-gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func jsonHandler(out io.Writer) slog.Handler { release(); return slog.NewJSONHandler(out, nil) }

func textHandler(out io.Writer) slog.Handler { return slog.NewTextHandler(out, nil) }

func slogJournal(logger *slog.Logger) journal { return logger.InfoContext }

// ginSlogText is gin-contrib/slog without options: slog's text form on stderr.
func ginSlogText() logging {
	own := slog.New(textHandler(os.Stderr))
	return logging{access: ginslog.SetLogger(), recovery: gin.Recovery(), say: slogJournal(own)}
}

func ginSlogJSON() logging {
	own := slog.New(jsonHandler(os.Stdout))
	access := ginslog.SetLogger(ginslog.WithLogger(func(*gin.Context, *slog.Logger) *slog.Logger { return own }))
	return logging{access: access, recovery: gin.Recovery(), say: slogJournal(own)}
}

// slogGin is the README of samber/slog-gin.
func slogGin(handler slog.Handler) logging {
	logger := slog.New(handler)
	return logging{access: sloggin.New(logger), recovery: gin.Recovery(), say: slogJournal(logger)}
}

// spanHandler adds the ids of the span that the context carries, as the bridges of the OpenTelemetry project and of
// most services do.
type spanHandler struct{ slog.Handler }

func (h spanHandler) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record.AddAttrs(
			slog.String("trace_id", span.TraceID().String()),
			slog.String("span_id", span.SpanID().String()),
		)
	}
	return h.Handler.Handle(ctx, record)
}

func (h spanHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return spanHandler{h.Handler.WithAttrs(attrs)}
}

func (h spanHandler) WithGroup(name string) slog.Handler {
	return spanHandler{h.Handler.WithGroup(name)}
}

// otelLogging has otelgin outermost, so that the access line still finds the span, and OpenTelemetry's names.
func otelLogging() logging {
	logger := slog.New(spanHandler{jsonHandler(os.Stdout)}).With("service.name", service)
	provider := sdktrace.NewTracerProvider()
	tracing := otelgin.Middleware(
		service,
		otelgin.WithTracerProvider(provider),
		otelgin.WithPropagators(propagation.TraceContext{}),
	)
	access := func(c *gin.Context) {
		start := time.Now()
		c.Next()
		level := slog.LevelInfo
		switch status := c.Writer.Status(); {
		case status >= http.StatusInternalServerError:
			level = slog.LevelError
		case status >= http.StatusBadRequest:
			level = slog.LevelWarn
		}
		attrs := []slog.Attr{
			slog.String("http.request.method", c.Request.Method),
			slog.String("http.route", c.FullPath()),
			slog.String("url.path", c.Request.URL.Path),
			slog.Int("http.response.status_code", c.Writer.Status()),
			slog.Float64("duration_ms", float64(time.Since(start))/float64(time.Millisecond)),
			slog.String("client.address", c.ClientIP()),
			slog.String("user_agent.original", c.Request.UserAgent()),
			slog.Int("http.response.body.size", max(c.Writer.Size(), 0)),
		}
		if last := c.Errors.Last(); last != nil {
			attrs = append(attrs, slog.Any("error", last.Err))
		}
		logger.LogAttrs(c.Request.Context(), level, "request", attrs...)
	}
	recovery := gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, reason any) {
		logger.ErrorContext(c.Request.Context(), "recovered from panic",
			"exception.message", reason, "exception.stacktrace", string(debug.Stack()))
		c.AbortWithStatus(http.StatusInternalServerError)
	})
	return logging{
		before:   []gin.HandlerFunc{tracing},
		access:   access,
		recovery: recovery,
		say:      slogJournal(logger),
		flush:    func() { _ = provider.Shutdown(context.Background()) },
	}
}
