package main

import (
	"context"
	"time"

	ginzap "github.com/gin-contrib/zap"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ginzapLogging is the README of gin-contrib/zap.
func ginzapLogging(logger *zap.Logger) logging {
	return logging{
		access:   ginzap.Ginzap(logger, time.RFC3339, true),
		recovery: ginzap.RecoveryWithZap(logger, true),
		say: func(_ context.Context, message string, pairs ...any) {
			logger.Sugar().Infow(message, pairs...)
		},
		flush: func() { _ = logger.Sync() },
	}
}

func zapProduction() *zap.Logger {
	release()
	config := zap.NewProductionConfig()
	config.Sampling = nil
	return zap.Must(config.Build())
}

// zapSampled loses lines: 100 of a message in a second, then every 100th. The message is the path.
func zapSampled() *zap.Logger {
	release()
	return zap.Must(zap.NewProduction())
}

func zapDevelopment() *zap.Logger { return zap.Must(zap.NewDevelopment()) }

// zapMillis rounds latencies down to whole milliseconds: most become 0.
func zapMillis() *zap.Logger {
	release()
	config := zap.NewProductionConfig()
	config.Sampling = nil
	config.EncoderConfig.EncodeDuration = zapcore.MillisDurationEncoder
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.Must(config.Build())
}
