package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// A journal writes a line of the service's own: a message and alternating keys and values, as slog has them.
type journal func(ctx context.Context, message string, pairs ...any)

// A logging is one way of logging: where it stands in the chain of handlers, and how the service itself writes.
type logging struct {
	stock    bool              // access and recovery are the ones of gin.Default()
	doubled  bool              // they come on top of the ones of gin.Default()
	before   []gin.HandlerFunc // around both, such as tracing
	access   gin.HandlerFunc
	recovery gin.HandlerFunc
	say      journal
	flush    func()
}

// engine puts the logger before recovery, as every README shows it, unless told to make the mistake.
func (l logging) engine(recoveryFirst bool) *gin.Engine {
	if l.stock && !recoveryFirst {
		return gin.Default()
	}
	engine := gin.New()
	if l.doubled {
		engine = gin.Default()
	}
	engine.Use(l.before...)
	if recoveryFirst {
		engine.Use(l.recovery, l.access)
	} else {
		engine.Use(l.access, l.recovery)
	}
	return engine
}

// loggers are built once per process: some set globals of their libraries, as services do.
var loggers = map[string]func() logging{
	"gin":            ginText,
	"gin-release":    func() logging { gin.SetMode(gin.ReleaseMode); return ginText() },
	"gin-formatter":  ginFormatter,
	"ginzap":         func() logging { return ginzapLogging(zapProduction()) },
	"ginzap-sampled": func() logging { return ginzapLogging(zapSampled()) },
	"ginzap-dev":     func() logging { return ginzapLogging(zapDevelopment()) },
	"zap-millis":     func() logging { return ginzapLogging(zapMillis()) },
	"logger-console": loggerConsole,
	"logger-json":    loggerJSON,
	"gin-slog-json":  ginSlogJSON,
	"gin-slog-text":  ginSlogText,
	"slog-gin-json":  func() logging { return slogGin(jsonHandler(os.Stdout)) },
	"slog-gin-text":  func() logging { return slogGin(textHandler(os.Stdout)) },
	"logrus-json":    func() logging { return logrusLogging(logrusJSON()) },
	"logrus-text":    func() logging { return logrusLogging(logrusText()) },
	"zerolog":        zerologLogging,
	"canonical":      canonicalLogging,
	"double":         double,
	"otel":           otelLogging,
}

func loggerNames() []string { return slices.Sorted(maps.Keys(loggers)) }

// release is the mode of services whose logs are for machines. GIN_MODE, where set, wins as it does in Gin.
func release() {
	if os.Getenv(gin.EnvGinMode) == "" {
		gin.SetMode(gin.ReleaseMode)
	}
}

// ginText is what gin.Default() has; the service itself writes with the standard library's log.
func ginText() logging {
	return logging{stock: true, access: gin.Logger(), recovery: gin.Recovery(), say: standard}
}

// ginFormatter is the example of Gin's README, found verbatim in most services that have a formatter.
func ginFormatter() logging {
	formatter := func(param gin.LogFormatterParams) string {
		return fmt.Sprintf("%s - [%s] \"%s %s %s %d %s \"%s\" %s\"\n",
			param.ClientIP,
			param.TimeStamp.Format(time.RFC1123),
			param.Method,
			param.Path,
			param.Request.Proto,
			param.StatusCode,
			param.Latency,
			param.Request.UserAgent(),
			param.ErrorMessage,
		)
	}
	return logging{access: gin.LoggerWithFormatter(formatter), recovery: gin.Recovery(), say: standard}
}

// double is what happens to services that add a structured logger and keep gin.Default().
func double() logging {
	structured := ginzapLogging(zapProduction())
	structured.doubled = true
	return structured
}

func standard(_ context.Context, message string, pairs ...any) {
	text := &strings.Builder{}
	text.WriteString(message)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(text, " %v=%v", pairs[i], pairs[i+1])
	}
	log.Print(text)
}
