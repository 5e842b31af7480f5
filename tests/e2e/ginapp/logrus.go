package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/sirupsen/logrus"
)

func logrusJSON() *logrus.Logger {
	release()
	logger := logrus.New()
	logger.SetFormatter(&logrus.JSONFormatter{})
	return logger
}

// logrusText is logrus as it comes: without a terminal it writes key=value on stderr.
func logrusText() *logrus.Logger { return logrus.New() }

// logrusLogging writes what github.com/toorop/gin-logrus writes: the same names, types, rounding, levels and message.
// The module itself (last changed in 2021, still in many services) can no longer be fetched from the module proxy.
func logrusLogging(logger *logrus.Logger) logging {
	host, _ := os.Hostname()
	host = cmp.Or(os.Getenv("HOSTNAME"), host) // in a pod the same, and here fixed for the recordings
	access := func(c *gin.Context) {
		path, start := c.Request.URL.Path, time.Now()
		c.Next()
		// Whole milliseconds, rounded up: nothing takes less than 1.
		millis := int(math.Ceil(time.Since(start).Seconds() * 1000))
		status, size := c.Writer.Status(), max(c.Writer.Size(), 0)
		ip, agent, referer := c.ClientIP(), c.Request.UserAgent(), c.Request.Referer()
		entry := logger.WithFields(logrus.Fields{
			"hostname":   host,
			"statusCode": status,
			"latency":    millis,
			"clientIP":   ip,
			"method":     c.Request.Method,
			"path":       path,
			"referer":    referer,
			"dataLength": size,
			"userAgent":  agent,
		})
		message := fmt.Sprintf(`%s - %s [%s] "%s %s" %d %d "%s" "%s" (%dms)`,
			ip, host, time.Now().Format("02/Jan/2006:15:04:05 -0700"),
			c.Request.Method, path, status, size, referer, agent, millis)
		switch {
		case len(c.Errors) > 0:
			entry.Error(c.Errors.ByType(gin.ErrorTypePrivate).String())
		case status >= http.StatusInternalServerError:
			entry.Error(message)
		case status >= http.StatusBadRequest:
			entry.Warn(message)
		default:
			entry.Info(message)
		}
	}
	say := func(_ context.Context, message string, pairs ...any) {
		fields := logrus.Fields{}
		for i := 0; i+1 < len(pairs); i += 2 {
			fields[fmt.Sprint(pairs[i])] = pairs[i+1]
		}
		logger.WithFields(fields).Info(message)
	}
	return logging{access: access, recovery: gin.Recovery(), say: say}
}
