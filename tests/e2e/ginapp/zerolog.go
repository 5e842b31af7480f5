package main

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/gin-contrib/logger"
	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"
)

// loggerConsole is gin-contrib/logger without options: zerolog's console form on stderr.
func loggerConsole() logging {
	console := zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: true}).With().Timestamp().Logger()
	return logging{access: logger.SetLogger(), recovery: gin.Recovery(), say: zerologJournal(console)}
}

// loggerJSON is the "JSON format log" of the README of gin-contrib/logger.
func loggerJSON() logging {
	release()
	json := logger.WithLogger(func(_ *gin.Context, l zerolog.Logger) zerolog.Logger {
		return l.Output(gin.DefaultWriter).With().Logger()
	})
	own := zerolog.New(gin.DefaultWriter).With().Timestamp().Logger()
	return logging{access: logger.SetLogger(json), recovery: gin.Recovery(), say: zerologJournal(own)}
}

// zerologLogging is a middleware written by hand, as most services with zerolog have one: times as Unix
// milliseconds, a route, and panics as records of their own.
func zerologLogging() logging {
	release()
	zerolog.TimeFieldFormat = zerolog.TimeFormatUnixMs
	log := zerolog.New(os.Stdout).With().Timestamp().Str("service", service).Logger()
	access := func(c *gin.Context) {
		start := time.Now()
		c.Next()
		level := zerolog.InfoLevel
		switch status := c.Writer.Status(); {
		case status >= http.StatusInternalServerError:
			level = zerolog.ErrorLevel
		case status >= http.StatusBadRequest:
			level = zerolog.WarnLevel
		}
		line := log.WithLevel(level).
			Str("method", c.Request.Method).
			Str("route", c.FullPath()).
			Str("path", c.Request.URL.Path).
			Int("status", c.Writer.Status()).
			Dur("latency", time.Since(start)).
			Str("client_ip", c.ClientIP()).
			Str("user_agent", c.Request.UserAgent()).
			Int("bytes", c.Writer.Size())
		if last := c.Errors.Last(); last != nil {
			line = line.Err(last)
		}
		line.Msg("request")
	}
	recovery := gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, reason any) {
		log.Error().Interface("panic", reason).Bytes("stack", debug.Stack()).Msg("recovered from panic")
		c.AbortWithStatus(http.StatusInternalServerError)
	})
	return logging{access: access, recovery: recovery, say: zerologJournal(log)}
}

func zerologJournal(log zerolog.Logger) journal {
	return func(_ context.Context, message string, pairs ...any) {
		log.Info().Fields(pairs).Msg(message)
	}
}
