// The browser that every test uses: the system's Chromium, so that none is downloaded. Another path: CHROMIUM=/path.

export const launchOptions = {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // Chromium refuses its sandbox to root.
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
};

export const browser = { locale: 'en-GB', viewport: { width: 1360, height: 900 }, launchOptions };
