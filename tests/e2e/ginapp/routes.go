package main

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	slowest = 500 * time.Millisecond
	// How long /broken-pipe waits for its client to go away, and how much it then writes at most. The first write
	// after the client has closed may still succeed: only the answer to it tells the kernel.
	patience  = 5 * time.Second
	muchBytes = 8 << 20
)

func route(engine *gin.Engine, say journal) {
	engine.GET("/health", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "pass"}) })
	engine.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	engine.GET("/orders/:id", getOrder)
	engine.POST("/orders", func(c *gin.Context) { postOrder(c, say) })
	engine.GET("/slow", slow)
	engine.GET("/status/:code", status)
	engine.GET("/files/*path", files)
	engine.GET("/panic", func(c *gin.Context) {
		var stock map[string]int
		stock[c.Query("item")]++
	})
	engine.GET("/panic-string", func(*gin.Context) {
		panic("inventory check failed\nitem 7: negative stock\nitem 9: unknown warehouse")
	})
	engine.GET("/error", func(c *gin.Context) {
		_ = c.Error(errors.New("db: deadline exceeded"))
		_ = c.Error(errors.Join(errors.New("rollback failed"), errors.New("connection already closed"))).
			SetMeta(gin.H{"attempt": 2})
		c.JSON(http.StatusInternalServerError, gin.H{"error": "internal"})
	})
	engine.GET("/broken-pipe", brokenPipe)
}

type order struct {
	ID    int    `json:"id"`
	Item  string `json:"item" binding:"required"`
	Count int    `json:"count" binding:"min=1"`
}

// getOrder knows the orders 1 to 9999: a 404 of a route that exists is not the 404 of one that does not.
func getOrder(c *gin.Context) {
	id, err := strconv.Atoi(c.Param("id"))
	if err != nil || id < 1 || id > 9999 {
		c.JSON(http.StatusNotFound, gin.H{"error": "no such order"})
		return
	}
	c.JSON(http.StatusOK, order{ID: id, Item: "tea", Count: 1 + id%7})
}

// postOrder logs a line of its own: it has a duration and is no request.
func postOrder(c *gin.Context, say journal) {
	var wanted order
	start := time.Now()
	if err := c.ShouldBindJSON(&wanted); err != nil {
		c.JSON(http.StatusBadRequest, gin.H{"error": "bad order"})
		return
	}
	say(c.Request.Context(), "order stored", "item", wanted.Item, "took", time.Since(start))
	c.JSON(http.StatusCreated, wanted)
}

func slow(c *gin.Context) {
	asked, err := strconv.Atoi(c.DefaultQuery("ms", "10"))
	if err != nil || asked < 0 {
		c.JSON(http.StatusBadRequest, gin.H{"error": "ms must be a number"})
		return
	}
	pause := min(time.Duration(asked)*time.Millisecond, slowest)
	select {
	case <-time.After(pause):
		c.String(http.StatusOK, "waited %s", pause)
	case <-c.Request.Context().Done():
		c.Status(499) // nginx's "client closed request", as many services have it
	}
}

// status answers with the code it is asked for; 1xx are no final answers.
func status(c *gin.Context) {
	code, err := strconv.Atoi(c.Param("code"))
	if err != nil || code < 200 || code > 599 {
		c.JSON(http.StatusBadRequest, gin.H{"error": "code must be 200 to 599"})
		return
	}
	c.String(code, "%d", code)
}

func files(c *gin.Context) {
	c.Data(http.StatusOK, "application/octet-stream", []byte(c.Param("path")))
}

// brokenPipe writes to a client that has gone. By default it panics with the error of the write, as services that
// check nothing else do, so that Recovery takes its broken-pipe branch; with ?via=render Gin's own renderer meets
// the error and puts it on c.Errors. The status is 200 both ways: that is what was written.
func brokenPipe(c *gin.Context) {
	select {
	case <-c.Request.Context().Done():
	case <-time.After(patience):
		c.String(http.StatusRequestTimeout, "the client is still there")
		return
	}
	if c.Query("via") == "render" {
		c.Data(http.StatusOK, "application/octet-stream", bytes.Repeat([]byte{'x'}, muchBytes))
		return
	}
	c.Status(http.StatusOK)
	block := bytes.Repeat([]byte{'x'}, 64<<10)
	for range muchBytes / len(block) {
		if _, err := c.Writer.Write(block); err != nil {
			panic(err)
		}
	}
}
